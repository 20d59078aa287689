"""The preference store's tables. One SQLite file: rows and consumer offsets change in the same transaction."""

import sqlite3
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL, response_id TEXT NOT NULL, conversation_id TEXT NOT NULL, rater_id TEXT NOT NULL,
    policy_version TEXT NOT NULL, candidate_ids TEXT NOT NULL, prompt_sha256 BLOB NOT NULL,
    serve_time REAL NOT NULL, consent INTEGER NOT NULL,
    record BLOB,                        -- ResponseRecorded; NULL once erased
    UNIQUE (tenant, response_id)
);
CREATE INDEX IF NOT EXISTS responses_by_time ON responses (serve_time) WHERE consent AND record IS NOT NULL;
CREATE INDEX IF NOT EXISTS responses_by_rater ON responses (tenant, rater_id);

CREATE TABLE IF NOT EXISTS feedback (
    id INTEGER PRIMARY KEY,
    feedback_id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL, rater_id TEXT NOT NULL, content_sha256 BLOB NOT NULL,
    opinion BLOB NOT NULL,              -- what latest-wins is decided within: rater, responses, kind, candidate
    receive_time REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'current', 'superseded', 'dead', 'erased')),
    retracted INTEGER NOT NULL DEFAULT 0,
    sequence INTEGER,                   -- set when it became current
    learned_version TEXT,
    seen_time REAL NOT NULL, origin TEXT NOT NULL,
    record BLOB                         -- FeedbackRecorded; NULL once erased
);
CREATE UNIQUE INDEX IF NOT EXISTS one_current ON feedback (opinion) WHERE state = 'current';
CREATE INDEX IF NOT EXISTS judgements ON feedback (sequence) WHERE state = 'current' AND NOT retracted;
CREATE INDEX IF NOT EXISTS sequences ON feedback (sequence);
CREATE INDEX IF NOT EXISTS waiting ON feedback (seen_time) WHERE state = 'waiting';
CREATE INDEX IF NOT EXISTS feedback_by_rater ON feedback (tenant, rater_id);

CREATE TABLE IF NOT EXISTS targets (    -- which responses a feedback is about
    tenant TEXT NOT NULL, response_id TEXT NOT NULL, feedback INTEGER NOT NULL REFERENCES feedback (id),
    PRIMARY KEY (tenant, response_id, feedback)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS targets_by_feedback ON targets (feedback);

CREATE TABLE IF NOT EXISTS retractions (
    retraction_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL, rater_id TEXT NOT NULL, response_id TEXT NOT NULL, target_id TEXT NOT NULL,
    content_sha256 BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'applied', 'dead')),
    seen_time REAL NOT NULL, origin TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS retractions_by_target ON retractions (target_id);
CREATE INDEX IF NOT EXISTS retractions_waiting ON retractions (seen_time) WHERE state = 'waiting';

CREATE TABLE IF NOT EXISTS erasures (
    tenant TEXT NOT NULL, rater_id TEXT NOT NULL, request_time REAL NOT NULL, PRIMARY KEY (tenant, rater_id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS dead_letters (
    dead_letter_id TEXT PRIMARY KEY, reason INTEGER NOT NULL, feedback_id TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS offsets (
    cluster_id TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, topic, partition)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS outbox (     -- events to emit, in order, once their cause is committed
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, event_id TEXT NOT NULL, type TEXT NOT NULL,
    tenant TEXT NOT NULL
);
"""


def open_writer(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA secure_delete=ON")  # what is erased leaves the file too
    db.execute("PRAGMA cache_size=-65536")
    db.executescript(SCHEMA)
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA query_only=ON")
    return db
