-- What became of the inputs of each function, minute by minute. queue and run: how long they waited and ran, as a table of
-- buckets (server/tally.py). part tells server processes apart: each adds its own rows of a minute that it shares with another.

CREATE TABLE function_minutes (
  function_id TEXT NOT NULL,
  minute INTEGER NOT NULL,
  part INTEGER NOT NULL,
  success INTEGER NOT NULL,
  failure INTEGER NOT NULL,
  timeout INTEGER NOT NULL,
  cancelled INTEGER NOT NULL,
  queue TEXT NOT NULL,
  run TEXT NOT NULL,
  queue_seconds REAL NOT NULL,
  run_seconds REAL NOT NULL,
  PRIMARY KEY (function_id, minute, part)
) WITHOUT ROWID;
CREATE INDEX function_minutes_by_age ON function_minutes (minute);
