-- The first schema. Times are unix seconds (REAL), JSON is TEXT, user bytes are BLOB.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE environments (
  name TEXT PRIMARY KEY,
  owner TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE apps (
  app_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL,
  environment TEXT NOT NULL,
  state TEXT NOT NULL,
  owner TEXT NOT NULL,
  tags TEXT NOT NULL DEFAULT '{}',
  created_at REAL NOT NULL,
  stopped_at REAL,
  stop_reason TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX apps_by_state ON apps (state);
CREATE INDEX apps_by_name ON apps (environment, name);

CREATE TABLE functions (
  function_id TEXT PRIMARY KEY,
  app_id TEXT NOT NULL,
  name TEXT NOT NULL,
  spec TEXT NOT NULL,
  version INTEGER NOT NULL DEFAULT 1,
  created_at REAL NOT NULL,
  UNIQUE (app_id, name)
) WITHOUT ROWID;

CREATE TABLE calls (
  call_id TEXT PRIMARY KEY,
  function_id TEXT NOT NULL,
  app_id TEXT NOT NULL,
  method TEXT NOT NULL DEFAULT '',
  parent_input TEXT NOT NULL DEFAULT '',
  created_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX calls_by_app ON calls (app_id);

-- An input and its output, in one row: the row is the truth about one unit of work.
CREATE TABLE inputs (
  input_id TEXT PRIMARY KEY,
  call_id TEXT NOT NULL,
  position INTEGER NOT NULL DEFAULT 0,
  function_id TEXT NOT NULL,
  app_id TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 1,
  retries INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  container_id TEXT NOT NULL DEFAULT '',
  body BLOB,
  blob TEXT NOT NULL DEFAULT '',
  size INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  done_at REAL,
  status TEXT NOT NULL DEFAULT '',
  result BLOB,
  result_blob TEXT NOT NULL DEFAULT '',
  result_size INTEGER NOT NULL DEFAULT 0,
  failure TEXT,
  error TEXT,
  log_offset INTEGER NOT NULL DEFAULT 0,
  UNIQUE (call_id, position)
);
CREATE INDEX inputs_unfinished ON inputs (input_id) WHERE state <> 'done';
CREATE INDEX inputs_by_app_unfinished ON inputs (app_id) WHERE state <> 'done';
CREATE INDEX inputs_by_age ON inputs (done_at) WHERE state = 'done';

CREATE TABLE containers (
  container_id TEXT PRIMARY KEY,
  app_id TEXT NOT NULL,
  function_id TEXT NOT NULL,
  node_id TEXT NOT NULL,
  image_id TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL,
  gpus TEXT NOT NULL DEFAULT '[]',
  memory INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  ended_at REAL,
  why TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX containers_by_app ON containers (app_id);
CREATE INDEX containers_alive ON containers (container_id) WHERE state <> 'ended';

CREATE TABLE nodes (
  node_id TEXT PRIMARY KEY,
  hostname TEXT NOT NULL,
  version TEXT NOT NULL,
  hello TEXT NOT NULL,
  first_seen REAL NOT NULL,
  last_seen REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE images (
  image_id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  python_version TEXT NOT NULL DEFAULT '',
  spec TEXT NOT NULL,
  created_at REAL NOT NULL,
  last_used_at REAL NOT NULL,
  UNIQUE (digest, python_version)
) WITHOUT ROWID;

CREATE TABLE volumes (
  volume_id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  environment TEXT NOT NULL,
  owner TEXT NOT NULL,
  format INTEGER NOT NULL DEFAULT 2,
  version INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  UNIQUE (environment, name)
) WITHOUT ROWID;

CREATE TABLE volume_versions (
  volume_id TEXT NOT NULL,
  version INTEGER NOT NULL,
  committed_at REAL NOT NULL,
  committed_by TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (volume_id, version)
) WITHOUT ROWID;

CREATE TABLE tokens (
  token_id TEXT PRIMARY KEY,
  secret_hash BLOB NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  owner TEXT NOT NULL,
  created_at REAL NOT NULL,
  last_used_at REAL
) WITHOUT ROWID;

-- name is '' for an anonymous secret, which belongs to app_id alone.
CREATE TABLE secrets (
  secret_id TEXT PRIMARY KEY,
  name TEXT NOT NULL DEFAULT '',
  environment TEXT NOT NULL,
  owner TEXT NOT NULL,
  app_id TEXT NOT NULL DEFAULT '',
  sealed BLOB NOT NULL,
  keys TEXT NOT NULL,
  created_at REAL NOT NULL,
  created_by TEXT NOT NULL DEFAULT '',
  last_used_at REAL
) WITHOUT ROWID;
CREATE UNIQUE INDEX secrets_by_name ON secrets (environment, name) WHERE name <> '';
CREATE INDEX secrets_by_app ON secrets (app_id) WHERE app_id <> '';

-- Who needs a blob: it may go when no row names it and it has not been asked for in a while.
CREATE TABLE blob_refs (
  digest TEXT NOT NULL,
  holder TEXT NOT NULL,
  created_at REAL NOT NULL,
  PRIMARY KEY (digest, holder)
) WITHOUT ROWID;
CREATE INDEX blob_refs_by_holder ON blob_refs (holder);
