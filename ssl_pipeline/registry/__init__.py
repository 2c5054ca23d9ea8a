"""A registry of encoders: immutable entries, and aliases such as `champion` that point to them."""
