"""Image data sets, preprocessing and model recipes for MLPerf image classification."""
