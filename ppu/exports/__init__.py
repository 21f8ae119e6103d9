"""From the store to files and pages: reports, charts, documents."""
