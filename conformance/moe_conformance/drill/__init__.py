"""The fault drill: implementations that really crash, hang and exhaust memory, and what a run makes of them."""
