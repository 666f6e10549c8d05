"""All that is durable: the tables and every question asked of them."""
