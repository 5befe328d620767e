"""The tabs of the page: a function each, which lays its tab out and has its events answered."""
