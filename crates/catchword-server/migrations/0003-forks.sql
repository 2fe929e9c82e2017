-- Of two histories of one writer one counts, and the other is void: verdict 3. Among what counts a number
-- is there once. A record whose chain is 2 says no more than that what it names is void.

DROP INDEX catchword.records_number;
CREATE UNIQUE INDEX records_number ON catchword.records
    (account_id, document, chain, actor, number) WHERE verdict <> 3;
CREATE INDEX records_void ON catchword.records
    (account_id, document, chain, actor, number) WHERE verdict = 3;

DROP INDEX catchword.records_hash;
CREATE UNIQUE INDEX records_hash ON catchword.records
    (account_id, document, hash) WHERE chain <> 2;

DROP INDEX catchword.records_op;
CREATE INDEX records_op ON catchword.records
    (account_id, document, actor, start_op) WHERE chain = 0 AND verdict <> 3;
