"""Train on labels of which 40 % are wrong, with and without coresets: python examples/coreset_in_python.py"""

import torch
from torch import nn

import memloc
from memloc.coreset import Crust, symmetric_noise, train_robust

images, test = memloc.open_images("sample:train"), memloc.open_images("sample:test")
images = images.take(torch.arange(0, len(images), 4))
given = symmetric_noise(images.labels.numpy(), 0.4)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))


crust = Crust(0.5, objective="centrality", group_by="prediction")
for name, selected in (("all points", None), ("coresets", crust)):
    run = train_robust(net(), images, labels=given, true_labels=images.labels, test=test, crust=selected, epochs=25)
    last = run.history.iloc[-1]
    print(
        f"{name}: test accuracy {last['test_accuracy']:.3f}, {last['noisy_memorized']:.0%} of the wrong labels memorized"
    )
suspected = run.points[run.points["suspected"] == 1]
wrong = (suspected["label"] != suspected["true_label"]).mean()
print(
    f"{len(suspected)} labels are suspected, {wrong:.0%} of them wrong; the first:",
    suspected.nsmallest(5, "p_label")["row"].tolist(),
)
