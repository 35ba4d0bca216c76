DROP VIEW arb.dust;
