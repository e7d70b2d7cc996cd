"""Result tables: schemas, reading and writing, the Audit object. Imports no torch."""

from memloc.results._audit import Audit as Audit
from memloc.results._files import make_folder as make_folder
from memloc.results._files import plain as plain
from memloc.results._files import read_json as read_json
from memloc.results._files import read_table as read_table
from memloc.results._files import replacing as replacing
from memloc.results._files import write_json as write_json
from memloc.results._files import write_table as write_table
from memloc.results._schema import SCHEMA_VERSION as SCHEMA_VERSION
from memloc.results._schema import TABLES as TABLES
from memloc.results._schema import Column as Column
from memloc.results._schema import conform as conform
from memloc.results._schema import read_record as read_record
from memloc.results._spec import check_folder as check_folder
from memloc.results._spec import claim_folder as claim_folder
from memloc.results._spec import spec_hash as spec_hash
