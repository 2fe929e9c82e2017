-- What the ledger keeps. Every key begins with the account.
--
-- The service works as catchword_service, which owns nothing and sees the rows of one account at a
-- time: of the one that the transaction named in app.account_id, and of none where it named none.

CREATE TABLE catchword.accounts (
    account_id bytea NOT NULL,
    password_hash text NOT NULL,
    feed bigint NOT NULL DEFAULT 0,
    documents bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id)
);

CREATE TABLE catchword.devices (
    account_id bytea NOT NULL,
    device_id bytea NOT NULL,
    name text NOT NULL,
    token_hash bytea NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL,
    PRIMARY KEY (account_id, device_id),
    FOREIGN KEY (account_id) REFERENCES catchword.accounts
);

CREATE TABLE catchword.documents (
    account_id bytea NOT NULL,
    document bytea NOT NULL,
    name text NOT NULL,
    version bigint NOT NULL DEFAULT 0,
    events bigint NOT NULL DEFAULT 0,
    actors bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, document),
    FOREIGN KEY (account_id) REFERENCES catchword.accounts
);

CREATE TABLE catchword.records (
    account_id bytea NOT NULL,
    feed bigint NOT NULL,
    through bigint NOT NULL,
    document bytea NOT NULL,
    version bigint NOT NULL,
    chain smallint NOT NULL,
    actor bytea NOT NULL,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    start_op bigint NOT NULL,
    max_op bigint NOT NULL,
    author bytea,
    clock bytea NOT NULL,
    verdict smallint NOT NULL,
    statement bytea,
    bytes bytea NOT NULL,
    PRIMARY KEY (account_id, feed),
    FOREIGN KEY (account_id, document) REFERENCES catchword.documents
);

CREATE UNIQUE INDEX records_number ON catchword.records (account_id, document, chain, actor, number);
CREATE UNIQUE INDEX records_hash ON catchword.records (account_id, document, hash);
CREATE INDEX records_op ON catchword.records (account_id, document, actor, start_op) WHERE chain = 0;

CREATE TABLE catchword.folds (
    account_id bytea NOT NULL,
    document bytea NOT NULL,
    register bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (account_id, document, register),
    FOREIGN KEY (account_id, document) REFERENCES catchword.documents
);

DO $$
DECLARE
    of_account constant text :=
        'account_id = decode(current_setting(''app.account_id'', true), ''hex'')';
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['accounts', 'devices', 'documents', 'records', 'folds'] LOOP
        EXECUTE format('ALTER TABLE catchword.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE catchword.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY of_account ON catchword.%I USING (%s) WITH CHECK (%s)',
            name, of_account, of_account);
        EXECUTE format(
            'GRANT SELECT, INSERT, UPDATE, DELETE ON catchword.%I TO catchword_service', name);
    END LOOP;
END $$;
