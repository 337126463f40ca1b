-- What web functions were asked, minute by minute, as the gateway answered: statuses ("200:12 404:1") and how long each answer
-- took to begin, as a table of buckets (server/tally.py). part tells server processes apart, as in function_minutes.

CREATE TABLE web_minutes (
  function_id TEXT NOT NULL,
  minute INTEGER NOT NULL,
  part INTEGER NOT NULL,
  statuses TEXT NOT NULL,
  latency TEXT NOT NULL,
  PRIMARY KEY (function_id, minute, part)
) WITHOUT ROWID;
CREATE INDEX web_minutes_by_age ON web_minutes (minute);
