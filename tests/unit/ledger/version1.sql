BEGIN TRANSACTION;
CREATE TABLE ng_counters (
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	count BIGINT NOT NULL, 
	PRIMARY KEY (night, camera, state)
);
INSERT INTO "ng_counters" VALUES('20260821','lynx','seen',0);
INSERT INTO "ng_counters" VALUES('20260821','lynx','complete',4);
INSERT INTO "ng_counters" VALUES('20260821','lynx','grouped',0);
INSERT INTO "ng_counters" VALUES('20260821','lynx','running',1);
INSERT INTO "ng_counters" VALUES('20260821','lynx','reduced',2);
INSERT INTO "ng_counters" VALUES('20260821','lynx','rejected',1);
CREATE TABLE ng_entries (
	"key" VARCHAR NOT NULL, 
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	path TEXT NOT NULL, 
	size BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	content_id VARCHAR, 
	exposure_id VARCHAR, 
	revision INTEGER NOT NULL, 
	state VARCHAR NOT NULL, 
	active_state VARCHAR, 
	fallback VARCHAR, 
	reason TEXT NOT NULL, 
	cause VARCHAR NOT NULL, 
	kind VARCHAR, 
	ref TEXT, 
	group_id VARCHAR, 
	token VARCHAR, 
	owner VARCHAR, 
	lease_until FLOAT, 
	attempts INTEGER NOT NULL, 
	retry_at FLOAT, 
	quality VARCHAR, 
	masters TEXT, 
	measured TEXT, 
	timings TEXT, 
	seen_at FLOAT NOT NULL, 
	complete_at FLOAT, 
	grouped_at FLOAT, 
	running_at FLOAT, 
	reduced_at FLOAT, 
	latency_s FLOAT, 
	changes INTEGER NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000001','20260821','lynx','/data/raw/0001.fits',2881,1,'00000001000000010000000100000001','lynx/20260821/0001',1,'reduced',NULL,NULL,'','','science','{"exposure_id":"lynx/20260821/0001","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0001.fits","size":2881,"content_id":"00000001000000010000000100000001","started_at":"2026-08-21T23:00:10+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}','lynx/20260821/set:0001',NULL,NULL,NULL,1,NULL,'ok','["bias-1"]','{"seeing":1.5}','{"bias":0.1}',1787353200.0,1787353200.0,1787353200.0,1787353200.0,1787353200.0,0.0,5);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000002','20260821','lynx','/data/raw/0002.fits',2882,1,'00000002000000020000000200000002','lynx/20260821/0002',1,'reduced',NULL,NULL,'','','science','{"exposure_id":"lynx/20260821/0002","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0002.fits","size":2882,"content_id":"00000002000000020000000200000002","started_at":"2026-08-21T23:00:20+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}','lynx/20260821/set:0001',NULL,NULL,NULL,1,NULL,'ok','["bias-1"]','{"seeing":1.5}','{"bias":0.1}',1787353200.0,1787353200.0,1787353200.0,1787353200.0,1787353200.0,0.0,5);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000003','20260821','lynx','/data/raw/0003.fits',2883,1,'00000003000000030000000300000003','lynx/20260821/0003',1,'complete','complete',NULL,'','','science','{"exposure_id":"lynx/20260821/0003","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0003.fits","size":2883,"content_id":"00000003000000030000000300000003","started_at":"2026-08-21T23:00:30+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}',NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,1787353200.0,1787353200.0,NULL,NULL,NULL,NULL,2);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000004','20260821','lynx','/data/raw/0004.fits',2884,1,NULL,NULL,1,'rejected',NULL,NULL,'cut','Rejected',NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,1787353200.0,NULL,NULL,NULL,NULL,NULL,2);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000005','20260821','lynx','/data/raw/0005.fits',2885,1,'00000005000000050000000500000005','lynx/20260821/77-ccd-1',1,'complete','complete',NULL,'','','science','{"exposure_id":"lynx/20260821/77-ccd-1","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0005.fits","size":2885,"content_id":"00000005000000050000000500000005","started_at":"2026-08-21T23:00:50+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"ccd 1","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}',NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,1787353200.0,1787353200.0,NULL,NULL,NULL,NULL,2);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000006','20260821','lynx','/data/raw/0006.fits',2886,1,'00000006000000060000000600000006','lynx/20260821/77-ccd2',1,'complete','complete',NULL,'','','science','{"exposure_id":"lynx/20260821/77-ccd2","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0006.fits","size":2886,"content_id":"00000006000000060000000600000006","started_at":"2026-08-21T23:01:00+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"ccd2","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}',NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,1787353200.0,1787353200.0,NULL,NULL,NULL,NULL,2);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000007','20260821','lynx','/data/raw/0008.fits',2888,1,'00000008000000080000000800000008','lynx/20260821/m13-01234567',1,'complete','complete',NULL,'','','science','{"exposure_id":"lynx/20260821/m13-01234567","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0008.fits","size":2888,"content_id":"00000008000000080000000800000008","started_at":"2026-08-21T23:01:20+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"ccd2","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}',NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,1787353200.0,1787353200.0,NULL,NULL,NULL,NULL,2);
INSERT INTO "ng_entries" VALUES('20260821/lynx/00000008','20260821','lynx','/data/raw/0009.fits',2889,1,'00000009000000090000000900000009','lynx/20260821/0009',1,'running','running',NULL,'','','science','{"exposure_id":"lynx/20260821/0009","night":"20260821","camera":"lynx","kind":"science","path":"/data/raw/0009.fits","size":2889,"content_id":"00000009000000090000000900000009","started_at":"2026-08-21T23:01:30+00:00","exposure_time_s":5.0,"filter":"","target":"","detector":"","binning":"1x1","readout":"","group_number":0,"group_count":0,"revision":1}','lynx/20260821/set:0009','502ae07deea15996','me',1787353260.0,1,NULL,NULL,NULL,NULL,NULL,1787353200.0,1787353200.0,1787353200.0,1787353200.0,NULL,NULL,4);
CREATE TABLE ng_events (
	"key" VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	"before" VARCHAR, 
	"after" VARCHAR NOT NULL, 
	reason TEXT NOT NULL, 
	owner VARCHAR NOT NULL, 
	PRIMARY KEY ("key", number)
)
 WITHOUT ROWID

;
INSERT INTO "ng_events" VALUES('20260821/lynx/00000001',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000001',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000001',3,1,1787353200.0,'complete','grouped','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000001',4,1,1787353200.0,'grouped','running','','me');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000001',5,1,1787353200.0,'running','reduced','','me');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000002',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000002',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000002',3,1,1787353200.0,'complete','grouped','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000002',4,1,1787353200.0,'grouped','running','','me');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000002',5,1,1787353200.0,'running','reduced','','me');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000003',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000003',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000004',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000004',2,1,1787353200.0,'seen','rejected','cut','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000005',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000005',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000006',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000006',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000007',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000007',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000008',1,1,1787353200.0,NULL,'seen','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000008',2,1,1787353200.0,'seen','complete','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000008',3,1,1787353200.0,'complete','grouped','','');
INSERT INTO "ng_events" VALUES('20260821/lynx/00000008',4,1,1787353200.0,'grouped','running','','me');
CREATE TABLE ng_groups (
	group_id VARCHAR NOT NULL, 
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	rule VARCHAR NOT NULL, 
	members TEXT NOT NULL, 
	complete INTEGER NOT NULL, 
	revision INTEGER NOT NULL, 
	reason TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (group_id)
)
 WITHOUT ROWID

;
INSERT INTO "ng_groups" VALUES('lynx/20260821/set:0001','20260821','lynx','set','["lynx/20260821/0001","lynx/20260821/0002"]',1,1,'',1787353200.0);
INSERT INTO "ng_groups" VALUES('lynx/20260821/set:0009','20260821','lynx','set','["lynx/20260821/0009"]',1,1,'',1787353200.0);
CREATE TABLE ng_masters (
	master_id VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	night VARCHAR NOT NULL, 
	record TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (master_id)
);
CREATE TABLE ng_meta (
	name VARCHAR NOT NULL, 
	value VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "ng_meta" VALUES('schema','1');
CREATE TABLE ng_nights (
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	opened_at FLOAT NOT NULL, 
	closed_at FLOAT, 
	PRIMARY KEY (night, camera)
);
INSERT INTO "ng_nights" VALUES('20260821','lynx',1787353200.0,NULL);
CREATE TABLE ng_products (
	subject VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	path TEXT NOT NULL, 
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	checksum VARCHAR NOT NULL, 
	size BIGINT NOT NULL, 
	inputs TEXT NOT NULL, 
	superseded INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (subject, kind, path)
)
 WITHOUT ROWID

;
INSERT INTO "ng_products" VALUES('lynx/20260821/0001','reduced','/data/products/reduced.fits','20260821','lynx','00',7,'[]',0,1787353200.0);
INSERT INTO "ng_products" VALUES('lynx/20260821/0002','reduced','/data/products/reduced.fits','20260821','lynx','00',7,'[]',0,1787353200.0);
CREATE TABLE ng_revisions (
	"key" VARCHAR NOT NULL, 
	revision INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	state VARCHAR NOT NULL, 
	record TEXT NOT NULL, 
	PRIMARY KEY ("key", revision)
)
 WITHOUT ROWID

;
CREATE TABLE ng_runs (
	run_id VARCHAR NOT NULL, 
	record TEXT NOT NULL, 
	ended_at FLOAT NOT NULL, 
	flow_run_id VARCHAR NOT NULL, 
	reported_at FLOAT, 
	PRIMARY KEY (run_id)
);
CREATE TABLE ng_sequences (
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	last BIGINT NOT NULL, 
	PRIMARY KEY (night, camera)
);
INSERT INTO "ng_sequences" VALUES('20260821','lynx',8);
CREATE TABLE ng_stages (
	night VARCHAR NOT NULL, 
	camera VARCHAR NOT NULL, 
	stage VARCHAR NOT NULL, 
	due FLOAT NOT NULL, 
	state VARCHAR NOT NULL, 
	token VARCHAR, 
	owner VARCHAR, 
	lease_until FLOAT, 
	attempts INTEGER NOT NULL, 
	retry_at FLOAT, 
	summary TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	started_at FLOAT, 
	ended_at FLOAT, 
	PRIMARY KEY (night, camera, stage)
);
INSERT INTO "ng_stages" VALUES('20260821','lynx','midway',1787371200.0,'pending',NULL,NULL,NULL,0,NULL,'{}','',NULL,NULL);
INSERT INTO "ng_stages" VALUES('20260821','lynx','final',1787443200.0,'pending',NULL,NULL,NULL,0,NULL,'{}','',NULL,NULL);
CREATE INDEX ng_entries_latency ON ng_entries (night, camera, latency_s) WHERE latency_s IS NOT NULL;
CREATE INDEX ng_entries_active ON ng_entries (active_state, "key") WHERE active_state IS NOT NULL;
CREATE UNIQUE INDEX ng_entries_path ON ng_entries (path, camera);
CREATE INDEX ng_entries_content ON ng_entries (night, camera, content_id);
CREATE INDEX ng_entries_night ON ng_entries (night, camera, "key");
CREATE UNIQUE INDEX ng_entries_exposure ON ng_entries (exposure_id);
CREATE INDEX ng_groups_night ON ng_groups (night, camera, group_id);
CREATE INDEX ng_products_night ON ng_products (night, camera, kind, subject);
CREATE INDEX ng_masters_choice ON ng_masters (camera, kind, night);
CREATE INDEX ng_stages_state ON ng_stages (state, due);
CREATE INDEX ng_runs_open ON ng_runs (reported_at, ended_at);
COMMIT;
