-- A peer, as those contents list it which are among some of what it owns.
-- KEYS: peer, own. ARGV: where to go on with its contents, how many at most.
-- Returns nothing if it is not known; else its address, the other one, its score, its
-- revision, where to go on, and ids.
local peer = redis.call('HMGET', KEYS[1], 'host', 'addr', 'dead', 'also', 'score', 'rev')
if not peer[1] or peer[3] then
    return false
end
local some = redis.call('SSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
return {peer[2], peer[4] or '', peer[5] or '', peer[6], some[1], some[2]}
