from ._images import images_of as images_of
from ._run import Run as Run
from ._run import check_trust as check_trust
from ._run import encoder_of as encoder_of
from ._run import load_run as load_run
from ._run import open_run as open_run
