"""Programs as users of the original wrote them. They use only the names that existed then."""
