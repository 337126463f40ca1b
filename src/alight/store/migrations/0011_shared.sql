-- Dicts and queues by name; what they hold is in a database of its own (decision 0017). name: NULL for a nameless one.

CREATE TABLE shared_objects (
  object_id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  name TEXT,
  environment TEXT NOT NULL,
  owner TEXT NOT NULL,
  created_at REAL NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX shared_objects_by_name ON shared_objects (kind, environment, name);

-- Nameless objects of any kind that live while somebody says now and then that they are wanted.

CREATE TABLE ephemerals (
  object_id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  environment TEXT NOT NULL,
  owner TEXT NOT NULL,
  seen_at REAL NOT NULL
) WITHOUT ROWID;
