-- Inputs become ranges of their call. A call has chunks of inputs while it is open, outputs as they came, and the attempts of
-- inputs that are not at their first. Rows of the first schema (one input for each call) move over.

ALTER TABLE calls RENAME TO calls_1;
DROP INDEX calls_by_app;

-- seq is the order of arrival. total is NULL while more inputs may come; error (JSON) is what inputs without an output of their
-- own ended with. status: '' while it is open, then success, failed, cancelled, expired; orphan: outputs came for a call that
-- nobody has asked for again yet.
CREATE TABLE calls (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  call_id TEXT NOT NULL UNIQUE,
  function_id TEXT NOT NULL,
  app_id TEXT NOT NULL,
  verb TEXT NOT NULL DEFAULT 'remote',
  method TEXT NOT NULL DEFAULT '',
  parent_call TEXT NOT NULL DEFAULT '',
  parent_position INTEGER NOT NULL DEFAULT 0,
  created_at REAL NOT NULL,
  accepted INTEGER NOT NULL DEFAULT 0,
  total INTEGER,
  succeeded INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  done_at REAL,
  status TEXT NOT NULL DEFAULT '',
  error TEXT,
  caller_gone INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX calls_by_app ON calls (app_id);
CREATE INDEX calls_by_function ON calls (function_id);
CREATE INDEX calls_open ON calls (function_id) WHERE done_at IS NULL;
CREATE INDEX calls_open_of_app ON calls (app_id) WHERE done_at IS NULL;
CREATE INDEX calls_by_age ON calls (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX calls_by_parent ON calls (parent_call) WHERE parent_call <> '';

-- Inputs that travelled together. sizes: 32-bit numbers, big-endian; NULL: one input, which is all of the body. flags: of the
-- chunk's head (1: the body is the name of something larger).
CREATE TABLE chunks (
  call_id TEXT NOT NULL,
  start INTEGER NOT NULL,
  count INTEGER NOT NULL,
  flags INTEGER NOT NULL DEFAULT 0,
  sizes BLOB,
  body BLOB NOT NULL,
  PRIMARY KEY (call_id, start)
);

-- What came of inputs, in order of arrival within a call. kind 0: values, head is that of chunk.Outputs; 1: the end of one input
-- that is no value, head is a CallUpdate in JSON; 2: items of a generator, start is its position and first the item's number;
-- 3: the end of all inputs that have no other, as 1. start and count span the positions, which head lists when they are
-- scattered.
CREATE TABLE outputs (
  number INTEGER PRIMARY KEY,
  call_id TEXT NOT NULL,
  start INTEGER NOT NULL,
  count INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  first INTEGER NOT NULL DEFAULT 0,
  flags INTEGER NOT NULL DEFAULT 0,
  head BLOB NOT NULL,
  body BLOB NOT NULL,
  at REAL NOT NULL
);
CREATE INDEX outputs_by_call ON outputs (call_id);

CREATE TABLE attempts (
  call_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  retries INTEGER NOT NULL DEFAULT 0,
  failures INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (call_id, position)
) WITHOUT ROWID;

INSERT INTO calls (call_id, function_id, app_id, method, created_at, accepted, total, succeeded, failed, done_at, status)
SELECT c.call_id, c.function_id, c.app_id, c.method, c.created_at, 1, 1, i.status = 'success',
  i.state = 'done' AND i.status NOT IN ('success', 'expired'), i.done_at,
  CASE WHEN i.state <> 'done' THEN '' WHEN i.status IN ('success', 'cancelled', 'expired') THEN i.status ELSE 'failed' END
FROM calls_1 c JOIN inputs i ON i.call_id = c.call_id AND i.position = 0 ORDER BY c.created_at, c.call_id;

UPDATE calls SET
  parent_call = (SELECT p.call_id FROM calls_1 c JOIN inputs p ON p.input_id = c.parent_input WHERE c.call_id = calls.call_id)
WHERE call_id IN (SELECT c.call_id FROM calls_1 c JOIN inputs p ON p.input_id = c.parent_input WHERE c.parent_input <> '');

INSERT INTO chunks (call_id, start, count, flags, body)
SELECT i.call_id, 0, 1, i.blob <> '', CASE WHEN i.blob <> '' THEN CAST(i.blob || ':' || i.size AS BLOB) ELSE coalesce(i.body, x'') END
FROM inputs i JOIN calls c ON c.call_id = i.call_id WHERE i.state <> 'done';

INSERT INTO attempts (call_id, position, attempt, retries, failures)
SELECT i.call_id, 0, i.attempt, i.retries, i.failures
FROM inputs i JOIN calls c ON c.call_id = i.call_id WHERE i.state <> 'done' AND i.attempt > 1;

-- The heads of values are bytes: they are put together here, from a table of all there are.
CREATE TEMP TABLE byte AS SELECT x'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff' AS t;

INSERT INTO outputs (call_id, start, count, kind, flags, head, body, at)
SELECT call_id, 0, 1, 0, flags, CAST(x'02' || substr(t, flags + 1, 1) || x'0000' || x'0000000000000000'
    || substr(t, ((attempt >> 24) & 255) + 1, 1) || substr(t, ((attempt >> 16) & 255) + 1, 1) || substr(t, ((attempt >> 8) & 255) + 1, 1) || substr(t, ((attempt >> 0) & 255) + 1, 1)
    || x'00000001' || x'0000000000000000' || x'0000000000000000' || x'0000000000000000' || x'0000000000000000' || x'00000000'
    || substr(t, ((log_offset >> 24) & 255) + 1, 1) || substr(t, ((log_offset >> 16) & 255) + 1, 1) || substr(t, ((log_offset >> 8) & 255) + 1, 1) || substr(t, ((log_offset >> 0) & 255) + 1, 1)
    || call_id || container_id || substr(x'00000000000000000000000000000000000000000000000000', 1, 25 - length(container_id))
    || substr(t, ((length(body) >> 24) & 255) + 1, 1) || substr(t, ((length(body) >> 16) & 255) + 1, 1) || substr(t, ((length(body) >> 8) & 255) + 1, 1) || substr(t, ((length(body) >> 0) & 255) + 1, 1) AS BLOB), body, done_at
FROM (
  SELECT i.call_id, i.attempt, i.log_offset, i.container_id, i.done_at, (i.result_blob <> '') AS flags,
    CASE WHEN i.result_blob <> '' THEN CAST(i.result_blob || ':' || i.result_size AS BLOB)
      ELSE coalesce(i.result, x'') END AS body
  FROM inputs i JOIN calls c ON c.call_id = i.call_id WHERE i.state = 'done' AND i.status = 'success'
), byte;

DROP TABLE byte;

INSERT INTO outputs (call_id, start, count, kind, head, body, at)
SELECT i.call_id, 0, 1, 1, CAST(json_object('call_id', i.call_id, 'state', 'done', 'status', i.status, 'attempt', i.attempt,
    'failure', json(i.failure), 'error', json(i.error), 'container', i.container_id, 'log_offset', i.log_offset) AS BLOB),
  coalesce(i.result, x''), i.done_at
FROM inputs i JOIN calls c ON c.call_id = i.call_id WHERE i.state = 'done' AND i.status NOT IN ('success', 'expired');

DROP TABLE inputs;
DROP TABLE calls_1;
