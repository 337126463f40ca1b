-- Which version of its function a container was started with; 0 is not known. After a restart, one of an earlier version finishes
-- what it runs and ends.
ALTER TABLE containers ADD COLUMN function_version INTEGER NOT NULL DEFAULT 0;
