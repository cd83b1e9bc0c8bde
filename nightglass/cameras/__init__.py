"""Camera files that come with Nightglass."""
