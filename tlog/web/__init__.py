"""Pages for people (spec/pages.md)."""

from tlog.web import assets, segments, sign_in

PAGES = (*assets.ROUTES, *sign_in.ROUTES, *segments.ROUTES)
"""The routes of all pages."""
