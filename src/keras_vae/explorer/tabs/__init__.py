"""The tabs of the page. Each class lays out one tab in `build` and handles its events in the other methods."""
