-- What dicts and queues hold (decision 0017): a database of its own, server/shared.db.

-- used_at: seconds since 1970, true to the hour. A value is in its row, or in the blob large of length bytes.

CREATE TABLE dict_entries (
  entry INTEGER PRIMARY KEY,
  dict_id TEXT NOT NULL,
  used_at REAL NOT NULL,
  large TEXT NOT NULL DEFAULT '',
  length INTEGER NOT NULL DEFAULT 0,
  key BLOB NOT NULL,
  value BLOB NOT NULL
);

CREATE UNIQUE INDEX dict_entries_by_key ON dict_entries (dict_id, key);
CREATE INDEX dict_entries_in_order ON dict_entries (dict_id, entry);
CREATE INDEX dict_entries_by_use ON dict_entries (used_at);

-- Blobs that no entry refers to any more, since when.

CREATE TABLE dict_garbage (
  blob TEXT PRIMARY KEY,
  at REAL NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER dict_large_deleted AFTER DELETE ON dict_entries WHEN old.large <> ''
BEGIN
  INSERT OR IGNORE INTO dict_garbage (blob, at) VALUES (old.large, CAST(strftime('%s', 'now') AS INTEGER));
END;

CREATE TRIGGER dict_large_replaced AFTER UPDATE OF large ON dict_entries WHEN old.large <> '' AND old.large <> new.large
BEGIN
  INSERT OR IGNORE INTO dict_garbage (blob, at) VALUES (old.large, CAST(strftime('%s', 'now') AS INTEGER));
END;

-- number: counts up within a partition; what has a smaller one came before. The expiry of the last item is its partition's.

CREATE TABLE queue_items (
  queue_id TEXT NOT NULL,
  partition TEXT NOT NULL,
  number INTEGER NOT NULL,
  expires_at REAL NOT NULL,
  value BLOB NOT NULL,
  PRIMARY KEY (queue_id, partition, number)
) WITHOUT ROWID;

-- Requests that were carried out and whose answers may not have arrived. taken: items from start to before stop of a partition are
-- its answer, and still in queue_items. count, value, large, length: the answer of one to a dict. There are few at a time, and each
-- page that a put touches costs it time: no index but the key.

CREATE TABLE shared_requests (
  request TEXT PRIMARY KEY,
  object_id TEXT NOT NULL,
  at REAL NOT NULL,
  taken INTEGER NOT NULL DEFAULT 0,
  partition TEXT NOT NULL DEFAULT '',
  start INTEGER NOT NULL DEFAULT 0,
  stop INTEGER NOT NULL DEFAULT 0,
  count INTEGER NOT NULL DEFAULT 0,
  large TEXT NOT NULL DEFAULT '',
  length INTEGER NOT NULL DEFAULT 0,
  value BLOB
) WITHOUT ROWID;
