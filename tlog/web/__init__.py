"""Pages for people (spec/pages.md)."""

from tlog.web import assets, operations, policy, segments, sign_in, tokens

PAGES = (*assets.ROUTES, *sign_in.ROUTES, *segments.ROUTES, *operations.ROUTES, *policy.ROUTES, *tokens.ROUTES)
"""The routes of all pages."""
