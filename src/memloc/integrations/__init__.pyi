from ._exports import check_suffix as check_suffix
from ._exports import issues_table as issues_table
from ._exports import write_any as write_any
from ._lightning import AuditCallback as AuditCallback
