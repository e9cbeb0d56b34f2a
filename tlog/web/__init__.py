"""Pages for people (spec/pages.md)."""

from tlog.web import assets, entries, entry, segments, sign_in

PAGES = (*assets.ROUTES, *sign_in.ROUTES, *segments.ROUTES, *entries.ROUTES, *entry.ROUTES)
"""The routes of all pages."""
