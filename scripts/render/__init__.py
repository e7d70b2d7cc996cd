"""Documents from figures: reads JSON and the result schema, loses no row, measures nothing, imports no torch."""

from ._files import PAGES as PAGES
from ._files import Rendering as Rendering
from ._files import renderings as renderings
from ._page import fill as fill
from ._table import RefusedError as RefusedError
from ._table import Table as Table
from ._table import carry as carry
