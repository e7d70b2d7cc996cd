"""What importing costs and brings along."""

import subprocess
import sys


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_memloc_imports_no_torch():
    assert python("import memloc, sys; print('torch' in sys.modules)") == "False"


def test_report_and_results_import_no_torch():
    code = "import memloc.report, memloc.results, sys; print([name for name in ('torch', 'sklearn', 'scipy') if name in sys.modules])"
    assert python(code) == "[]"


def test_every_public_name_resolves():
    assert (
        python("import memloc; [getattr(memloc, name) for name in memloc.__all__]; print(len(memloc.__all__) > 10)")
        == "True"
    )


def test_audit_twice_in_a_fresh_process():
    code = """
import memloc, numpy, torch
images = numpy.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=numpy.uint8)
net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU())
one = memloc.audit(net, images=images, views=memloc.Views(n=4))
two = memloc.audit(net, images=images, views=memloc.Views(n=4))
print(one.units.equals(two.units))
"""
    assert python(code) == "True"


def test_a_room_hides_no_public_name():
    code = "import memloc.metrics, memloc.metrics._units, memloc.engine._audit, memloc; print(callable(memloc.metrics.unitmem), callable(memloc.audit), callable(memloc.engine.audit))"
    assert python(code) == "True True True"


def test_help_imports_nothing_heavy():
    code = "from memloc.cli import main; main(['--help']); import sys; print([name for name in ('torch', 'pandas', 'scipy', 'sklearn', 'numpy') if name in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


def test_an_audit_by_name_imports_no_compiler(tmp_path):
    """PyTorch's takes seconds to import, in every process."""
    code = f"""
import numpy, sys
from memloc.cli import main
images = numpy.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=numpy.uint8)
numpy.savez({str(tmp_path / "few.npz")!r}, images=images)
main(["audit", "--f", "resnet9", "--data", {str(tmp_path / "few.npz")!r}, "--views", "2", "--out", {str(tmp_path / "out")!r}])
print("torch._dynamo" in sys.modules)
"""
    assert python(code).splitlines()[-1] == "False"
