"""Software as (key, script): pure, but for the user's files that it reads through functions it is given."""
