-- A file has one control plane, which has nobody to tell which resolvers are connected to it.
DROP TABLE bridge_sessions;
