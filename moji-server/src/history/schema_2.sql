-- Version 2: builds that are parked, builders by class, generations, and what packages provided.
--
-- SQLite cannot change a CHECK: the table is made anew, with the same ids. Foreign keys are off meanwhile
-- (schema.rs), or dropping the old one would take its attempts with it.

-- Views that people made are left alone.
PRAGMA legacy_alter_table = ON;

CREATE TABLE builds_2 (
    id INTEGER PRIMARY KEY,
    target TEXT,                -- NULL: any builder may build it
    srpm TEXT NOT NULL,
    nvr TEXT,
    name TEXT,                  -- the package's, of the NVR
    srpm_sha256 TEXT,
    size INTEGER,
    queued_at INTEGER NOT NULL,
    state TEXT NOT NULL
        CHECK (state IN ('queued', 'parked', 'running', 'succeeded', 'failed', 'held', 'withdrawn')),
    parked_at INTEGER,          -- since when it waits for what is missing
    missing TEXT,               -- JSON: the requirements that nothing provided then
    settled_at INTEGER,
    reason TEXT,
    failure TEXT,
    settled_by TEXT,            -- an attempt
    CHECK ((settled_at IS NULL) = (state IN ('queued', 'parked', 'running'))),
    CHECK (state != 'parked' OR parked_at IS NOT NULL),
    CHECK ((parked_at IS NULL) = (missing IS NULL)),
    CHECK (settled_at IS NULL OR parked_at IS NULL)
) STRICT;

INSERT INTO builds_2 (id, target, srpm, nvr, name, srpm_sha256, size, queued_at, state, settled_at, reason,
                      failure, settled_by)
    SELECT id, target, srpm, nvr, name, srpm_sha256, size, queued_at, state, settled_at, reason, failure,
           settled_by FROM builds;
DROP TABLE builds;
ALTER TABLE builds_2 RENAME TO builds;

CREATE UNIQUE INDEX builds_open ON builds (srpm, ifnull(target, '')) WHERE settled_at IS NULL;
CREATE INDEX builds_srpm ON builds (srpm, target);
CREATE INDEX builds_name ON builds (name, settled_at);
CREATE INDEX builds_state ON builds (state, settled_at);
CREATE INDEX builds_queued_at ON builds (queued_at);
CREATE INDEX builds_settled_at ON builds (settled_at);

ALTER TABLE attempts ADD COLUMN builder_class TEXT;  -- architecture and cores: aarch64/4
ALTER TABLE attempts ADD COLUMN generation INTEGER;  -- of the repository that the builder was told
CREATE INDEX attempts_succeeded ON attempts (ended_at) WHERE outcome = 'succeeded';

-- What the last good build of each package provided, for who must wait for whom.
CREATE TABLE provides (
    target TEXT NOT NULL,       -- '': of the main repository
    package TEXT NOT NULL,      -- the SRPM's name
    capability TEXT NOT NULL,   -- RPM's notation: libfoo = 1.2-3
    PRIMARY KEY (target, package, capability)
) STRICT, WITHOUT ROWID;

PRAGMA legacy_alter_table = OFF;
