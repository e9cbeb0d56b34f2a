"""Pages for people (spec/pages.md)."""

from tlog.web import assets, entries, entry, export, oidc, segments, sign_in, watching

PAGES = (
    *assets.ROUTES,
    *sign_in.ROUTES,
    *oidc.ROUTES,
    *segments.ROUTES,
    *entries.ROUTES,
    *entry.ROUTES,
    *export.ROUTES,
    *watching.ROUTES,
)
"""The routes of all pages."""
