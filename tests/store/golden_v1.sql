-- A database as version 1 of the tables left it. Released: never edited.
PRAGMA application_id=1131179859;
PRAGMA user_version=1;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE maestro (
    one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, owner TEXT NOT NULL, dirty INTEGER NOT NULL
) STRICT;
CREATE TABLE runs (
    key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL, project TEXT NOT NULL,
    config_path TEXT NOT NULL, created_at REAL NOT NULL, ended_at REAL
) STRICT;
CREATE INDEX runs_by_config ON runs (config_path);
CREATE TABLE run_records (run INTEGER PRIMARY KEY REFERENCES runs, body TEXT NOT NULL) STRICT;
CREATE TABLE specs (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, environment TEXT NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE job_specs (
    key INTEGER PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL, spec INTEGER NOT NULL REFERENCES specs,
    argv TEXT NOT NULL, display TEXT NOT NULL, env TEXT NOT NULL, params TEXT NOT NULL, repeat_index INTEGER NOT NULL
) STRICT;
CREATE INDEX job_specs_by_name ON job_specs (name);
CREATE INDEX job_specs_by_hash ON job_specs (hash);
CREATE TABLE jobs (
    key INTEGER PRIMARY KEY,
    created_at REAL NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, exit_code INTEGER, attempt INTEGER NOT NULL,
    failures INTEGER NOT NULL, losses INTEGER NOT NULL, node TEXT NOT NULL, boot TEXT NOT NULL, after TEXT NOT NULL,
    not_before REAL NOT NULL, handed_at REAL, started_at REAL, ended_at REAL, cancel INTEGER NOT NULL,
    fetch TEXT NOT NULL, fetch_tries INTEGER NOT NULL, superseded_by INTEGER NOT NULL, batch INTEGER NOT NULL,
    maxrss INTEGER, cpu_seconds REAL,
    opened INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER final_is_final BEFORE UPDATE ON jobs
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.attempt <= OLD.attempt
    AND (NEW.state <> OLD.state OR NEW.attempt < OLD.attempt)
    AND NOT (NEW.state = 'pending' AND NEW.attempt = OLD.attempt AND NEW.opened > OLD.opened)
BEGIN
    SELECT RAISE (ABORT, 'final: the end of an attempt does not change');
END;
CREATE TABLE attempts (
    job INTEGER NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, exit_code INTEGER,
    node TEXT NOT NULL, handed_at REAL, started_at REAL, ended_at REAL, maxrss INTEGER, cpu_seconds REAL,
    PRIMARY KEY (job, attempt)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER attempt_left AFTER UPDATE ON jobs
WHEN OLD.attempt > 0 AND OLD.state <> 'pending' AND (NEW.state = 'pending' OR NEW.attempt > OLD.attempt)
BEGIN
    INSERT INTO attempts VALUES (
        OLD.key, OLD.attempt,
        CASE OLD.state WHEN 'running' THEN 'failed' ELSE OLD.state END,
        CASE
            WHEN OLD.state <> 'running' THEN OLD.reason
            WHEN NEW.reason LIKE 'retry after %' THEN substr(NEW.reason, 13)
            WHEN coalesce(OLD.started_at, NEW.started_at) IS NULL THEN 'never started'
            ELSE 'preempted'
        END,
        CASE WHEN OLD.state = 'running' AND NEW.state = 'pending' THEN NEW.exit_code ELSE OLD.exit_code END,
        OLD.node, OLD.handed_at,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.started_at, OLD.started_at) ELSE OLD.started_at END,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.ended_at, OLD.ended_at) ELSE OLD.ended_at END,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.maxrss, OLD.maxrss) ELSE OLD.maxrss END,
        CASE WHEN NEW.attempt = OLD.attempt THEN coalesce(NEW.cpu_seconds, OLD.cpu_seconds) ELSE OLD.cpu_seconds END
    ) ON CONFLICT (job, attempt) DO NOTHING;
END;
CREATE TABLE nodes (
    run INTEGER NOT NULL REFERENCES runs, name TEXT NOT NULL, provider TEXT NOT NULL, instance_id TEXT NOT NULL,
    state TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (run, name)
) STRICT;
CREATE TABLE builds (
    run INTEGER NOT NULL REFERENCES runs, node TEXT NOT NULL, environment TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (run, node, environment)
) STRICT;
CREATE TABLE environments (
    run INTEGER NOT NULL REFERENCES runs, environment TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (run, environment)
) STRICT;
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, id TEXT NOT NULL, kind TEXT NOT NULL, jobs TEXT,
    at REAL NOT NULL, UNIQUE (run, id)
) STRICT;
CREATE TABLE events (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, actor TEXT NOT NULL, run INTEGER, kind TEXT NOT NULL,
    subject TEXT NOT NULL, text TEXT NOT NULL
) STRICT;
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE (ABORT, 'events are only ever added'); END;
CREATE TRIGGER events_stand BEFORE UPDATE ON events BEGIN SELECT RAISE (ABORT, 'events are only ever added'); END;
INSERT INTO meta (name, value) VALUES ('installation_id', '0123456789abcdef0123456789abcdef');
INSERT INTO maestro (one, epoch, owner, dirty) VALUES (1, 0, '', 0);
INSERT INTO runs (key, id, version, project, config_path, created_at, ended_at) VALUES (1, 'abc123', 1, 'project', '/home/u/config.yml', 1000.0, NULL);
INSERT INTO run_records (run, body) VALUES (1, '{"id":"abc123","project":"project","config_path":"/home/u/config.yml","created_at":1000.0,"batch":1,"results_dir":"","max_parallel":null,"base_env":[["PATH","/bin"]],"settings":[],"cancelled":false,"ended_at":null,"version":0,"requests_done":[]}');
INSERT INTO specs (id, digest, environment, body) VALUES (1, '105068929cbe149d0ce39b497d217b7a', 'eeeeeeee', '{"secrets":["TOKEN"],"environment":"eeeeeeee","resources":{"cpus":2.5,"memory":8589934592,"gpus":1},"slots":["gpu-0"],"uploads":[{"path":"a/b.txt","sha256":"0000000000000000000000000000000000000000000000000000000000000000","size":12,"mode":493,"source":"/home/u/a/b.txt"}],"private_uploads":false,"outputs":[{"pattern":"out/*.csv","optional":false},{"pattern":"log","optional":true}],"workdir":"","timeout":60.0,"grace":10.0,"retries":2,"retries_lost":1,"after":[]}');
INSERT INTO job_specs (key, name, hash, spec, argv, display, env, params, repeat_index) VALUES (4294967297, 'train/1', 'f474c79ad01586d46afc1537c9b8764f', 1, '["python","train.py","--lr","1"]', 'python train.py --lr 1', '[["LR","1"],["HOME","/home/u"]]', '[["lr","1"]]', 1);
INSERT INTO job_specs (key, name, hash, spec, argv, display, env, params, repeat_index) VALUES (4294967298, 'train/2', 'a60e0218018172486a454cefbda6ced2', 1, '["python","train.py","--lr","2"]', 'python train.py --lr 2', '[["LR","2"],["HOME","/home/u"]]', '[["lr","2"]]', 2);
INSERT INTO job_specs (key, name, hash, spec, argv, display, env, params, repeat_index) VALUES (4294967299, 'train/3', 'd873e6839770cfeb64a940ed82da20f3', 1, '["python","train.py","--lr","3"]', 'python train.py --lr 3', '[["LR","3"],["HOME","/home/u"]]', '[["lr","3"]]', 3);
INSERT INTO jobs (key, created_at, state, reason, exit_code, attempt, failures, losses, node, boot, after, not_before, handed_at, started_at, ended_at, cancel, fetch, fetch_tries, superseded_by, batch, maxrss, cpu_seconds, opened) VALUES (4294967297, 1000.0, 'pending', '', NULL, 0, 0, 0, '', '', '', 0.0, NULL, NULL, NULL, 0, '', 0, 0, 1, NULL, NULL, 0);
INSERT INTO jobs (key, created_at, state, reason, exit_code, attempt, failures, losses, node, boot, after, not_before, handed_at, started_at, ended_at, cancel, fetch, fetch_tries, superseded_by, batch, maxrss, cpu_seconds, opened) VALUES (4294967298, 1000.0, 'pending', '', NULL, 0, 0, 0, '', '', '[1]', 0.0, NULL, NULL, NULL, 0, '', 0, 0, 1, NULL, NULL, 0);
INSERT INTO jobs (key, created_at, state, reason, exit_code, attempt, failures, losses, node, boot, after, not_before, handed_at, started_at, ended_at, cancel, fetch, fetch_tries, superseded_by, batch, maxrss, cpu_seconds, opened) VALUES (4294967299, 1000.0, 'pending', '', NULL, 0, 0, 0, '', '', '[1]', 0.0, NULL, NULL, NULL, 0, '', 0, 0, 1, NULL, NULL, 0);
INSERT INTO nodes (run, name, provider, instance_id, state, body) VALUES (1, 'local-0', 'local', '', 'running', '{"name":"local-0","provider":"local","capacity":{"cpus":4,"memory":17179869184,"gpus":0},"request":"{\"type\": \"local\"}","generation":0,"token":"","state":"running","instance_id":"","reason":"","not_before":0.0,"created_at":0.0,"price":null}');
INSERT INTO builds (run, node, environment, body) VALUES (1, 'local-0', 'eeeeeeee', '{"node":"local-0","key":"eeeeeeee","attempt":2,"state":"failed","boot":"boot","reason":"exit 3","losses":1}');
INSERT INTO environments (run, environment, name, body) VALUES (1, 'eeeeeeee', 'ml', '{"key":"eeeeeeee","name":"ml","script":"#!/bin/sh\n","slots":["tool-conda"],"variables":[["A","b"]]}');
INSERT INTO requests (seq, run, id, kind, jobs, at) VALUES (1, 1, 'r1', 'cancel', '[1,2]', 7.0);
INSERT INTO events (seq, at, actor, run, kind, subject, text) VALUES (1, 1234.5, 'user', 1, 'k', 's', 'the first');
