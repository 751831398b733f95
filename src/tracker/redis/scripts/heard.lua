-- A peer is heard of: its lease begins anew. REGISTER tells where it listens as well.
-- KEYS: peer, due. ARGV: ref, lease in ms; for REGISTER also the host that it must be of, or
-- nothing, its address, and the family of that.
-- Returns nothing if it is not known; else its address, the one of the other family, and
-- whether one of them has changed.
local peer = redis.call('HMGET', KEYS[1], 'host', 'addr', 'dead', 'also', 'also_until')
local host, addr, also = peer[1], peer[2], peer[4] or ''
if not host or peer[3] then
    return false
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved = 0
if #ARGV > 2 then
    if ARGV[3] ~= '' and ARGV[3] ~= host then
        return false
    end
    if ARGV[4] ~= addr then
        addr, moved = ARGV[4], 1
        redis.call('HSET', KEYS[1], 'addr', addr, 'family', ARGV[5])
    end
    if also ~= '' and (moved == 1 or tonumber(peer[5]) <= now) then
        also, moved = '', 1
        redis.call('HDEL', KEYS[1], 'also', 'also_until')
    end
    if moved == 1 then
        redis.call('HINCRBY', KEYS[1], 'rev', 1)
    end
end
redis.call('ZADD', KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
return {addr, also, moved}
