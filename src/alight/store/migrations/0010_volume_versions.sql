-- What a version of a volume changed, and what container it came from. kind: commit, background, exit, upload, restore.
-- removed -1: some, and nobody counted. size_limit: bytes that a volume may hold; 0: as many as its disk has.

ALTER TABLE volume_versions ADD COLUMN kind TEXT NOT NULL DEFAULT 'commit';
ALTER TABLE volume_versions ADD COLUMN files INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volume_versions ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volume_versions ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE volume_versions ADD COLUMN container_id TEXT NOT NULL DEFAULT '';
ALTER TABLE volume_versions ADD COLUMN app TEXT NOT NULL DEFAULT '';
ALTER TABLE volume_versions ADD COLUMN function TEXT NOT NULL DEFAULT '';
ALTER TABLE volumes ADD COLUMN size_limit INTEGER NOT NULL DEFAULT 0;
