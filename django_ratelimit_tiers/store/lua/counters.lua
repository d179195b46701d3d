-- Counters of one subject, shared by the scripts below it. Units: microseconds and requests.
--
-- All counters of a subject are one string, little-endian: when its key expires, in epoch seconds
-- of the server's clock (4 bytes), then a record of 32 bytes for each:
--   counter id (8), when it expires (4), time of the last charge (8), current (4), previous (8)
-- with the meaning of core.algorithms.CounterState. The log algorithm keeps its times in a list
-- beside it, and its record so that a reset finds the list. Every number is an exact integer below
-- 2^53; products that could pass it go through muldiv.lua.
--
-- Charges come grouped by subject, one after another, each as CHARGE: whether it is its subject's
-- last (1), the codes of algorithm and mode, counter id, limit, window, capacity, cost.
--
-- A call of a function, and each new string, takes a server longer than all arithmetic of a charge;
-- and it makes each function and table of a script anew whenever it runs it. So what several
-- scripts do is no function but stands in a file of its own, and is put in where they say
-- `-- @file`; numbers are divided without math.floor; and a value is put together only once.

local CHARGE, CHARGE_SIZE = '<BBBc8I4I8I4I4', 31
local RECORD, RECORD_SIZE, FIRST, EMPTY = '<c8I4I8I4I8', 32, 5, '\0\0\0\0'
local FOREVER, LAST_SECOND = 9007199254740991, 4294967295
local FIXED, LOG, SLIDING, BUCKET = 1, 2, 3, 4

local call, pack, unpack_from = redis.call, struct.pack, struct.unpack
local find, sub = string.find, string.sub
