DROP VIEW arb.gap_losses;
