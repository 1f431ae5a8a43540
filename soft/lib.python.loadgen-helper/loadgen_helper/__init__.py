"""Run an image classifier under MLPerf's LoadGen and judge what comes out."""
