"""Read recorded runs into one table, judge, compare and show them."""
