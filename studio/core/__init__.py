"""What every room may use: numbers in words, tables, escaping. It imports none of them."""
