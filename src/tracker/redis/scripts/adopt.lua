-- A content lists this peer, so the peer owns it: what lists somebody must end with them.
-- KEYS: peer, own, extra, sum. ARGV: id.
-- Returns 0 if the peer is not known.
local host = redis.call('HGET', KEYS[1], 'host')
if not host then
    return 0
end
if redis.call('SADD', KEYS[2], ARGV[1]) == 1 then
    redis.call('HINCRBY', KEYS[4], 'owned', 1)
    if redis.call('SCARD', KEYS[2]) > 1 then
        redis.call('HINCRBY', KEYS[3], host, 1)
    end
end
return 1
