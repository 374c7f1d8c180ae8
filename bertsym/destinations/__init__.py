"""Where models go: the formats of other libraries."""
