-- What containers had of machines (server/metering.py): by hour, by container, by call; and budgets. Amounts, never money: prices are
-- applied when somebody asks.

-- hour: since 1970. resource: container, cpu, cpu_used, memory, gpu:TYPE, energy, storage. state: busy, idle, starting.
CREATE TABLE usage_hours (
  hour INTEGER NOT NULL,
  app_id TEXT NOT NULL,
  function_id TEXT NOT NULL,
  owner TEXT NOT NULL,
  environment TEXT NOT NULL,
  resource TEXT NOT NULL,
  state TEXT NOT NULL,
  amount REAL NOT NULL,
  PRIMARY KEY (hour, app_id, function_id, owner, environment, resource, state)
) WITHOUT ROWID;
CREATE INDEX usage_by_app ON usage_hours (app_id);

-- until: when it was accounted for last, in the same transaction as the hours. Seconds; seen: its machine's counters then, JSON.
CREATE TABLE container_usage (
  container_id TEXT PRIMARY KEY,
  until REAL NOT NULL,
  busy REAL NOT NULL,
  idle REAL NOT NULL,
  starting REAL NOT NULL,
  cores REAL NOT NULL,
  gib REAL NOT NULL,
  gpu TEXT NOT NULL DEFAULT '',
  gpus REAL NOT NULL DEFAULT 0,
  seen TEXT NOT NULL DEFAULT '{}'
) WITHOUT ROWID;

-- Only calls that had at least a twentieth of a second. cores, gib: core-seconds and GiB-seconds.
CREATE TABLE call_usage (
  call_id TEXT NOT NULL,
  gpu TEXT NOT NULL,
  seconds REAL NOT NULL,
  cores REAL NOT NULL,
  gib REAL NOT NULL,
  gpu_seconds REAL NOT NULL,
  joules REAL NOT NULL,
  PRIMARY KEY (call_id, gpu)
) WITHOUT ROWID;

-- kind: app (name, by month), user (whose, by month), run (an app's id, over its life). cost and gpu_seconds: NULL is no limit.
CREATE TABLE budgets (
  kind TEXT NOT NULL,
  environment TEXT NOT NULL,
  name TEXT NOT NULL,
  cost REAL,
  gpu_seconds REAL,
  stop INTEGER NOT NULL DEFAULT 0,
  set_by TEXT NOT NULL,
  set_at REAL NOT NULL,
  PRIMARY KEY (kind, environment, name)
) WITHOUT ROWID;
