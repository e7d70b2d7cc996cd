from ._draws import owen_scramble as owen_scramble
from ._draws import philox as philox
from ._draws import uniforms as uniforms
from ._policies import POLICIES as POLICIES
from ._policies import Policy as Policy
from ._policies import policy_named as policy_named
from ._views import AUTO_COUNTS as AUTO_COUNTS
from ._views import Views as Views
