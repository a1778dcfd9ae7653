"""The checker: claims registrations, downloads, hashes, settles. Never imports the api."""
