-- depends: 0008.gap_losses

-- What closed trades have left behind, by venue; over all venues it is the exposure that nobody
-- has hedged yet. A negative amount on a spot venue is owed: ``free`` counts it, and it is not there.
CREATE VIEW arb.dust AS
    SELECT env, asset, venue, amount, sum(amount) OVER (PARTITION BY env, asset) AS exposure
    FROM arb.balances WHERE account = 'dust' AND amount <> 0;
