"""Where a spinning LiDAR was: A-LOAM's method, and what else can be done with its scans."""
