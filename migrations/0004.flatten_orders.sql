-- depends: 0002.snapshots

-- An operator's order to close trades: '*' is all of them, anything else one symbol. A row that
-- names a symbol changes no state, it repeats the one in force. An order holds until the next
-- change to active by an operator, and that of a symbol until the trade of that moment has ended.
ALTER TABLE arb.risk_events ADD COLUMN flatten text CHECK (flatten <> '');
