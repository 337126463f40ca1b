"""What survives a restart: all SQL of Alight, in named queries.

``base`` says what a store promises, ``sqlite`` keeps it in one file (or in memory), ``queries/*.sql`` hold the
statements and ``migrations/*.sql`` the schema. Nobody outside this package writes SQL, and nothing in here knows what
a call or an app means.
"""

from alight.store.base import Row, Statement, Store, transaction
from alight.store.sqlite import SqliteStore, open_store

__all__ = ["Row", "SqliteStore", "Statement", "Store", "open_store", "transaction"]
