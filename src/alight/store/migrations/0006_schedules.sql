-- Functions that run by themselves. schedule: JSON, as declared. version: of the app; since: a period counts from here, its
-- deploy. done: runs up to this moment were taken care of. paused outlives deploys. The rest is of the last run: due: its moment,
-- NULL for one that somebody asked for. begun: the call was accepted; a row with a call that was not is a server's that died in
-- between. status: '' until it is over.

CREATE TABLE schedules (
  function_id TEXT PRIMARY KEY,
  app_id TEXT NOT NULL,
  schedule TEXT NOT NULL,
  version INTEGER NOT NULL DEFAULT 0,
  since REAL NOT NULL,
  done REAL NOT NULL,
  paused INTEGER NOT NULL DEFAULT 0,
  call_id TEXT NOT NULL DEFAULT '',
  due REAL,
  run_at REAL,
  begun INTEGER NOT NULL DEFAULT 1,
  status TEXT NOT NULL DEFAULT '',
  error TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
