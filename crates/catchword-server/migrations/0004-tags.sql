-- What tells a record of the feed from another one with its number, after a backup was restored: each call
-- that writes draws one at random. An account has those of its last record and of the one before that
-- call's.

ALTER TABLE catchword.records ADD COLUMN tag bigint NOT NULL DEFAULT 0;
ALTER TABLE catchword.accounts ADD COLUMN tag bigint NOT NULL DEFAULT 0;
ALTER TABLE catchword.accounts ADD COLUMN tag_before bigint NOT NULL DEFAULT 0;
